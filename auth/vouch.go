package auth

import (
	"context"
	"strings"
)

// VouchFirst asks the user file about the names it holds, and next about every other, as FileFirst does.
func VouchFirst(file *File, next Voucher) Voucher { return vouchFirst{file, next} }

type vouchFirst struct {
	file *File
	next Voucher
}

func (v vouchFirst) Vouch(ctx context.Context, name string) (*Identity, error) {
	if v.file.Holds(name) {
		return v.file.Vouch(ctx, name)
	}
	return v.next.Vouch(ctx, name)
}

// Vouch says yes to the users in the file.
func (f *File) Vouch(_ context.Context, name string) (*Identity, error) {
	if !f.Holds(name) {
		return nil, &Denied{Reason: "not in the user file", Public: PublicRefusal, Err: ErrUnknownUser}
	}
	return &Identity{Name: name, By: "file"}, nil
}

// Changes implements Watcher: those whom the file has let in, and who are not in it any more. It waits for nobody.
func (f *File) Changes(_ context.Context, connected []*Identity) (changes []Change, err error) {
	for _, who := range connected {
		if strings.Contains(who.By, "file") && !f.Holds(who.Name) {
			changes = append(changes, Change{Name: who.Name, Reason: "not in the user file any more"})
		}
	}
	return changes, nil
}

// Epoch is for TokenOptions: another password ends the tokens that were got with the old one, and so does the end of
// the user. Users of other back ends have none here.
func (f *File) Epoch(name string) string {
	f.refresh()
	f.mu.Lock()
	defer f.mu.Unlock()
	if hash := f.users[name]; hash != nil {
		return hash.String()
	}
	return ""
}
