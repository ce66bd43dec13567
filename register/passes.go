package register

// passHook is called at each pass of a loop, with the loop's name. Only tests set one: no loop may spin while its peer
// is away.
type passHook func(loop string)

func (h passHook) pass(loop string) {
	if h != nil {
		h(loop)
	}
}
