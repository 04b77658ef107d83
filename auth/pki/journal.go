package pki

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"time"
)

// A journal is one change to the tree, written down before any of it is done. Doing it twice is as good as once: file
// steps carry whole contents and the hash of what they replace, index steps name a serial number. A step whose file
// holds neither the old nor the new contents is left alone when a journal is finished later: somebody, easy-rsa say,
// has been there since.
type journal struct {
	Issue  []string     `json:"issue,omitempty"` // index lines
	Revoke []revocation `json:"revoke,omitempty"`
	Files  []fileStep   `json:"files"`
}

type revocation struct {
	Serial string    `json:"serial"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
}

type fileStep struct {
	Path   string `json:"path"`
	Was    string `json:"was,omitempty"` // SHA-256 of the contents before; "" no file
	Data   []byte `json:"data,omitempty"`
	Remove bool   `json:"remove,omitempty"`
}

// errChanged means that another program wrote to the tree in the middle of a change of ours.
var errChanged = errors.New("changed by another program meanwhile")

func contentsOf(t *tree, name string) (sum string, err error) {
	b, err := t.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return hashOf(b), nil
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// write plans that path shall hold data.
func (j *journal) write(t *tree, path string, data []byte) error {
	was, err := contentsOf(t, path)
	if err != nil {
		return err
	}
	j.Files = append(j.Files, fileStep{Path: path, Was: was, Data: data})
	return nil
}

// remove plans that path shall be gone. A file that is not there needs no plan.
func (j *journal) remove(t *tree, path string) error {
	was, err := contentsOf(t, path)
	if err != nil || was == "" {
		return err
	}
	j.Files = append(j.Files, fileStep{Path: path, Was: was, Remove: true})
	return nil
}

// move plans that what is at from shall be at to, and reports whether there was anything.
func (j *journal) move(t *tree, from, to string) error {
	b, err := t.read(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := j.write(t, to, b); err != nil {
		return err
	}
	return j.remove(t, from)
}

// commit makes the change durable, then does it. With the lock held. When it returns nil the whole change is on disk.
func (j *journal) commit(t *tree) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if err := t.write(journalName, b); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := j.apply(t, false); err != nil {
		return err
	}
	return t.remove(journalName)
}

// recover finishes the change that a crash interrupted, if there is one. With the lock held.
func (t *tree) recover() error {
	b, err := t.read(journalName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var j journal
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("read %s: %w", journalName, err)
	}
	if err := j.apply(t, true); err != nil {
		return fmt.Errorf("finish the interrupted change in %s: %w", journalName, err)
	}
	return t.remove(journalName)
}

func (j *journal) apply(t *tree, later bool) error {
	if err := j.applyIndex(t); err != nil {
		return fmt.Errorf("update index.txt: %w", err)
	}
	for _, s := range j.Files {
		now, err := contentsOf(t, s.Path)
		if err != nil {
			return err
		}
		done := !s.Remove && now == hashOf(s.Data) || s.Remove && now == ""
		switch {
		case done:
			continue
		case now != s.Was && later:
			continue
		case now != s.Was:
			return fmt.Errorf("%s: %w", s.Path, errChanged)
		case s.Remove:
			err = t.remove(s.Path)
		default:
			err = t.write(s.Path, s.Data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) applyIndex(t *tree) error {
	if len(j.Issue) == 0 && len(j.Revoke) == 0 {
		return nil
	}
	was, err := t.read("index.txt")
	if err != nil {
		return err
	}
	x, err := parseIndex(was)
	if err != nil {
		return err
	}
	if err := j.changeIndex(x); err != nil {
		return err
	}
	if now := x.bytes(); !bytes.Equal(now, was) {
		return t.write("index.txt", now)
	}
	return nil
}

// changeIndex does to x what the journal will do to the file.
func (j *journal) changeIndex(x *index) error {
	for _, line := range j.Issue {
		e, err := parseEntry(line)
		if err != nil {
			return err
		}
		x.add(e)
	}
	for _, r := range j.Revoke {
		serial, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok {
			return fmt.Errorf("%q is not a serial number", r.Serial)
		}
		x.revoke(serial, r.At, r.Reason)
	}
	return nil
}
