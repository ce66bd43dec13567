package register

import "context"

// Source says what should be registered.
type Source interface {
	// Run blocks until ctx ends and calls publish, from one goroutine, whenever something changed. It returns
	// nil only when ctx ended.
	Run(ctx context.Context, publish func(Published)) error
}

// Published is one word from a Source.
type Published struct {
	// Desired is the complete set; nil when there is no news, after an error.
	Desired *Desired
	// Err says that the source does not answer; nil when it does again.
	Err error
	// Advertise describes the address in use, for people.
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
