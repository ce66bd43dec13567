package register

import "time"

// CountPasses makes every loop of a registrar call count at each of its passes.
func (o *Options) CountPasses(count func(loop string)) { o.onPass = count }

// CountPasses makes every loop of the source call count at each of its passes.
func (o *DockerOptions) CountPasses(count func(loop string)) { o.onPass = count }

// CountPasses makes every loop of Drain call count at each of its passes.
func (o *DrainOptions) CountPasses(count func(loop string)) { o.onPass = count }

// AllowTTL lets a test use a time to live below MinTTL.
func (o *Options) AllowTTL(least time.Duration) { o.minTTL = least }
