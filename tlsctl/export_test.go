package tlsctl

// ForgetPanics sets the count back, for tests that panic on purpose.
func ForgetPanics() { panics.Store(0) }
