package generation

import (
	"slices"
	"time"
)

const (
	// keepLoads is how many generations stay that HAProxy was started or reloaded with, whatever has come since.
	keepLoads = 10
	// keepHours is for how many hours the newest generation of each hour of the clock stays.
	keepHours = 24
)

// Retained names the generations that stay on disk: the newest ones of any kind, as many as keep says, the newest ten starts
// and reloads, the newest of each of the last 24 hours, and the current one. So a busy day of endpoint changes does not
// remove the reloads of the day before. all is in order, the oldest first.
func Retained(all []Generation, keep int, now time.Time) map[int64]bool {
	retained, hours, loads := map[int64]bool{}, map[time.Time]bool{}, 0
	for i, g := range slices.Backward(all) {
		load := g.Kind != KindEndpoints
		hour := g.Created.Truncate(time.Hour)
		newestOfHour := now.Sub(g.Created) < keepHours*time.Hour && !hours[hour]
		if g.Current || len(all)-i <= keep || load && loads < keepLoads || newestOfHour {
			retained[g.Number] = true
		}
		if load {
			loads++
		}
		hours[hour] = true
	}
	return retained
}
