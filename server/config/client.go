package config

import "errors"

// ErrNoClientFile is LoadClient's answer to a client without a file of its own where ccd-exclusive asks for one.
var ErrNoClientFile = errors.New("no client file")

// LoadClient reads what the directory dir says of the client named cn: its own file, else DEFAULT, else nothing (a
// Client without Path). With exclusive only its own file counts, and its absence is ErrNoClientFile. Lines that
// cannot be used become Warnings; an error means that the client must not be let in.
func LoadClient(dir, cn string, exclusive bool) (*Client, error) {
	return nil, errors.New("not written yet")
}

// Pushes returns what is pushed to this client when everybody gets inherited: push-reset and push-remove applied,
// the client's own pushes behind, and without routes to networks that are behind the client itself.
func (c *Client) Pushes(inherited []string) []string { return inherited }
