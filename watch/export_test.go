package watch

// Reads returns how often the tree was read.
func (d *Dir) Reads() int64 { return d.reads.Load() }
