package register

import "sync"

// queue hands events from the reader, which must never wait or Docker drops events, to the loop.
type queue struct {
	mu     sync.Mutex
	events []Event
	more   chan struct{}
}

func (q *queue) put(e Event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *queue) take() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.events
	q.events = nil
	return taken
}
