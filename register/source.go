package register

import "context"

// Source determines what should be registered.
type Source interface {
	// Run blocks until ctx ends and calls publish, from one goroutine, whenever something changed. It returns
	// nil only when ctx ended.
	Run(ctx context.Context, publish func(Published)) error
}

// Published is one update from a Source.
type Published struct {
	// Desired is the complete set; nil with an error, after which the last set still counts.
	Desired *Desired
	// Err is why the source does not answer; nil when it does.
	Err error
	// Advertise describes the address in use, for display.
	Advertise string
}

// Fixed is a Source of records that never change.
type Fixed []Record

// Run implements Source.
func (f Fixed) Run(ctx context.Context, publish func(Published)) error {
	publish(Published{Desired: &Desired{Records: f}})
	<-ctx.Done()
	return nil
}
