package management

import (
	"maps"
	"slices"
)

var (
	Words  = words
	Escape = escape
	Shown  = shown
)

const OutboxLimit = outboxLimit

// CommandNames lists the commands there are.
func CommandNames() []string { return slices.Sorted(maps.Keys(commands)) }
