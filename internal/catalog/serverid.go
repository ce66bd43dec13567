package catalog

import "hash/fnv"

const maxID = 1<<31 - 1

// hashID is the number of a name while no other name of the service has the same one. HAProxy takes 1 to 2^31-1.
func hashID(name string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash never fails
	if id := int(h.Sum32() & maxID); id != 0 {
		return id
	}
	return 1
}

// freeID is the first number from want on that is not taken, and takes it.
func freeID(taken map[int]bool, want int) int {
	for taken[want] {
		want = want%maxID + 1
	}
	taken[want] = true
	return want
}
