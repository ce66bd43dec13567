package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/docker/client"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/etcd"
	"nuncio/register"
)

// etcdFlags are the flags to reach the store. They also read nuncio's variables, because both programs use the same
// etcd.
type etcdFlags struct {
	EtcdEndpoints    []string `placeholder:"URL" env:"NUNCIO_REGISTRAR_ETCD_ENDPOINTS,NUNCIO_ETCD_ENDPOINTS" help:"Endpoints of etcd, separated by commas (default: Docker's link variables ETCD_PORT_..., otherwise http://127.0.0.1:2379)."`
	EtcdCA           string   `name:"etcd-ca" placeholder:"FILE" env:"NUNCIO_REGISTRAR_ETCD_CA,NUNCIO_ETCD_CA" help:"PEM file of the certificate authority that signed etcd's certificates."`
	EtcdCert         string   `placeholder:"FILE" env:"NUNCIO_REGISTRAR_ETCD_CERT,NUNCIO_ETCD_CERT" help:"PEM file of the client certificate; needs --etcd-key."`
	EtcdKey          string   `placeholder:"FILE" env:"NUNCIO_REGISTRAR_ETCD_KEY,NUNCIO_ETCD_KEY" help:"PEM file of the client certificate's key."`
	EtcdUser         string   `placeholder:"NAME" env:"NUNCIO_REGISTRAR_ETCD_USER,NUNCIO_ETCD_USER" help:"User name, if etcd's authentication is on; needs --etcd-password-file."`
	EtcdPasswordFile string   `placeholder:"FILE" env:"NUNCIO_REGISTRAR_ETCD_PASSWORD_FILE,NUNCIO_ETCD_PASSWORD_FILE" help:"File that contains the password."`
	Prefix           string   `default:"/services/" env:"NUNCIO_REGISTRAR_PREFIX,NUNCIO_PREFIX" help:"Prefix of the records' keys."`
}

func (f *etcdFlags) config(s *streams) etcd.Config {
	endpoints := f.EtcdEndpoints
	if len(endpoints) == 0 {
		endpoints = linked(s)
	}
	if len(endpoints) == 0 {
		endpoints = []string{"http://127.0.0.1:2379"}
	}
	return etcd.Config{
		Endpoints: endpoints, CAFile: f.EtcdCA, CertFile: f.EtcdCert, KeyFile: f.EtcdKey,
		User: f.EtcdUser, PasswordFile: f.EtcdPasswordFile,
	}
}

// linked returns the endpoints that "docker run --link NAME:etcd" puts into the environment, as units of the ambassador
// pattern do: ETCD_PORT_10000_TCP_ADDR and ETCD_PORT_10000_TCP_PORT.
func linked(s *streams) []string {
	var endpoints []string
	for _, pair := range s.environ {
		name, addr, _ := strings.Cut(pair, "=")
		base, ok := strings.CutSuffix(name, "_TCP_ADDR")
		if !ok || !strings.HasPrefix(base, "ETCD_PORT_") {
			continue
		}
		if port := s.lookup(base + "_TCP_PORT"); port != "" && addr != "" {
			endpoints = append(endpoints, "http://"+addr+":"+port)
		}
	}
	slices.Sort(endpoints)
	return endpoints
}

func (f *etcdFlags) dial(s *streams, log *slog.Logger) (*clientv3.Client, etcd.Config, error) {
	config := f.config(s)
	if err := config.Validate(); err != nil {
		return nil, config, cannotStart("%w", err)
	}
	c, err := etcd.Dial(config, log)
	if err != nil {
		return nil, config, cannotStart("%w", err)
	}
	return c, config, nil
}

// nodeFlags are the flags that name this host.
type nodeFlags struct {
	Node string `placeholder:"NAME" help:"Stable name of this host; it begins the names of its records (default: the host name)."`
}

// containerID matches the host name that Docker gives to a container; it differs for every container.
var containerID = regexp.MustCompile(`^[0-9a-f]{12}$`)

func (f *nodeFlags) node() (string, error) {
	if f.Node != "" {
		return f.Node, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", usage("--node is needed: %w", err)
	}
	if containerID.MatchString(host) {
		return "", usage("--node is needed: the host name %s is that of a container and differs for every container", host)
	}
	return host, nil
}

// dockerFlags are the flags to reach Docker.
type dockerFlags struct {
	DockerHost string `placeholder:"URL" help:"Docker's API: unix:///run/docker.sock or tcp://host:2376 (default: DOCKER_HOST, DOCKER_CERT_PATH and so on, otherwise the local socket)."`
	DockerCA   string `name:"docker-ca" placeholder:"FILE" help:"PEM file of the certificate authority of a Docker API behind TLS."`
	DockerCert string `placeholder:"FILE" help:"PEM file of the client certificate for a Docker API behind TLS."`
	DockerKey  string `placeholder:"FILE" help:"PEM file of the client certificate's key."`
}

func (f *dockerFlags) docker() (*client.Client, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation(), client.WithUserAgent("nuncio-registrar/" + version)}
	if f.DockerHost != "" {
		opts = append(opts, client.WithHost(f.DockerHost))
	}
	if f.DockerCA != "" || f.DockerCert != "" || f.DockerKey != "" {
		opts = append(opts, client.WithTLSClientConfig(f.DockerCA, f.DockerCert, f.DockerKey))
	}
	c, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, cannotStart("set up the Docker client: %w", err)
	}
	if strings.HasPrefix(c.DaemonHost(), "ssh:") {
		return nil, usage("--docker-host %s: ssh is not supported; use the local socket or tcp:// with certificates", c.DaemonHost())
	}
	return c, nil
}

// advertiseFlags are the flags for the address under which the published ports of this host are reached.
type advertiseFlags struct {
	AdvertiseIP        string `name:"advertise-ip" placeholder:"IP" xor:"advertise" help:"Address of this host for ports published on all addresses (default: the source address of the route to etcd)."`
	AdvertiseInterface string `placeholder:"NAME" xor:"advertise" help:"Interface whose first address is the address of this host."`
}

func (f *advertiseFlags) advertise(endpoints []string) (func(context.Context) register.Advertise, error) {
	if f.AdvertiseIP != "" {
		ip, err := netip.ParseAddr(f.AdvertiseIP)
		if err != nil || ip.IsUnspecified() || ip.Zone() != "" {
			return nil, usage("--advertise-ip %s: it must be the IP address under which other hosts reach this one", f.AdvertiseIP)
		}
		return func(context.Context) register.Advertise { return register.FixedAddress(ip) }, nil
	}
	if f.AdvertiseInterface != "" {
		return func(context.Context) register.Advertise { return register.InterfaceAddress(f.AdvertiseInterface) }, nil
	}
	return func(ctx context.Context) register.Advertise { return register.RouteAddress(ctx, endpoints) }, nil
}

// labelPrefix returns the prefix with a dot at its end.
func labelPrefix(p string) (string, error) {
	p = strings.TrimSuffix(p, ".")
	if p == "" || strings.ContainsAny(p, " =") {
		return "", fmt.Errorf("--label-prefix %q: a word such as nuncio is needed", p)
	}
	return p + ".", nil
}
