package pki

// DropKey removes the private key of NAME's current certificate, and of those before it that were renewed: whoever has its
// profile has the only copy (S093), but for those that easy-rsa may have left in inline/ and renewed/private_by_serial/.
// Without a key it does nothing.
func (p *PKI) DropKey(name string) error {
	if err := checkFileName(name); err != nil {
		return err
	}
	return p.change(func(j *journal) error {
		for _, dir := range []string{"", "renewed/"} {
			if err := j.remove(p.tree, dir+"private/"+name+".key"); err != nil {
				return err
			}
		}
		return nil
	})
}
