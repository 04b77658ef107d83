package tun

// An Owner may attach to a persistent device without privileges. -1 is nobody in particular.
type Owner struct{ UID, GID int }
