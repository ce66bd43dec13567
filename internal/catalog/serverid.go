package catalog

import "hash/fnv"

// maxID is the largest "id" that HAProxy accepts; the smallest is 1.
const maxID = 1<<31 - 1

// hashID returns the number of a name, used while no other name of the service has the same one.
func hashID(name string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash never fails
	if id := int(h.Sum32() & maxID); id != 0 {
		return id
	}
	return 1
}

// freeID returns the first unused number from want on, and marks it as used.
func freeID(used map[int]bool, want int) int {
	for used[want] {
		want = want%maxID + 1
	}
	used[want] = true
	return want
}

// withID returns the instance itself when it has that number already, else a copy with it.
func (i *Instance) withID(id int) *Instance {
	if i.ID == id {
		return i
	}
	moved := *i
	moved.ID = id
	return &moved
}
