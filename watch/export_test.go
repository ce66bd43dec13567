package watch

// Reads returns how often the tree was read.
func (d *Dir) Reads() int64 { return d.reads.Load() }

// Poll does what Run does from time to time without an event.
func (f *Files) Poll() { f.update(false) }
