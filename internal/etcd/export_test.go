package etcd

var ConnectParams = connectParams
