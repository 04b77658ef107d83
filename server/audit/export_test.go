package audit

// File is what a test puts in the place of one.
type File = file

// OpenBy is Open by another way to open a file.
func OpenBy(path string, opener func(string) (File, error)) (*Log, error) { return open(path, opener) }

// OpenDisk is how Open opens one.
var OpenDisk = openDisk
