package link

// NewListener lets tests accept from a listener of their own.
var NewListener = newListener
