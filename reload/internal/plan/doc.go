// Package plan finds the way from the configuration that HAProxy runs to a newer one without a reload.
//
// It promises that a HAProxy which carries out a Plan routes as a HAProxy that was started with the newer files would. Where
// it cannot promise that, it returns the reason for a reload: a plan that is too timid costs one reload, a wrong one costs
// traffic. It is pure: no process, no clock, no disk.
//
//	model, err := plan.NewModel(files.Text(haproxy.ConfigFile))
//	p, reason := plan.New(version).Plan(model, files, newer, leaving)
package plan
