package hooks

import (
	"context"
	"fmt"
	"os"
	"strconv"
)

// A Context says why the device goes up or down.
type Context string

const (
	Init    Context = "init"
	Restart Context = "restart"
)

// Up runs the up script. An error means that the server must not go on.
func (r *Runner) Up(ctx context.Context, c Context) error { return r.device(ctx, Up, c, "") }

// Down runs the down script. Its error is worth a warning. signal is what ends the server or the device: "sigterm", "sigusr1", ...; "" is not told.
func (r *Runner) Down(ctx context.Context, c Context, signal string) error {
	return r.device(ctx, Down, c, signal)
}

// RoutePreDown runs the route-pre-down script, before Down. Its error is worth a warning.
func (r *Runner) RoutePreDown(ctx context.Context, c Context, signal string) error {
	return r.device(ctx, RoutePreDown, c, signal)
}

// RouteUp runs the route-up script. An error is worth a warning.
func (r *Runner) RouteUp(ctx context.Context) error { return r.device(ctx, RouteUp, Init, "") }

func (r *Runner) device(ctx context.Context, k Kind, c Context, signal string) error {
	if !r.Has(k) {
		return nil
	}
	d := r.daemon.Load()
	env := d.environment()
	env.set("script_context", string(c))
	if signal != "" {
		env.set("signal", signal)
	}
	if k != Up { // where OpenVPN has set up its routes
		env.set("redirect_gateway", flag(d.RedirectGateway))
	}
	var args []string
	if k != RouteUp {
		args = []string{d.Dev, strconv.Itoa(d.MTU), "0", "", "", string(c)}
		if d.Local4.IsValid() {
			args[3] = d.Local4.Addr().String()
			if d.Remote4.IsValid() {
				args[4] = d.Remote4.String()
			} else {
				args[4] = netmask(d.Local4)
			}
		}
	}
	status, err := r.run(ctx, k, "", args, env)
	if err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("%s script: exit status %d", k, status)
	}
	return nil
}

// MetadataType says what a tls-crypt-v2 client key carries.
type MetadataType int

const (
	MetadataUser      MetadataType = 0
	MetadataTimestamp MetadataType = 1
)

// TLSCryptV2Verify asks whether a client key with this metadata, what follows the byte with its type, may still be
// used. It runs for the first packet of a client. The error is a *Refusal when the packet is to be dropped for what
// the script said.
func (r *Runner) TLSCryptV2Verify(ctx context.Context, t MetadataType, metadata []byte) error {
	if !r.Has(TLSCryptV2Verify) {
		return nil
	}
	path, err := makeFile(r.o.Load().TempDir, "tls_crypt_v2_metadata_", metadata)
	if err != nil {
		return fmt.Errorf("%s script: %w", TLSCryptV2Verify, err)
	}
	defer os.Remove(path)
	var env Env // OpenVPN tells nothing else
	env.setInt("metadata_type", int(t))
	env.set("metadata_file", path)
	status, err := r.run(ctx, TLSCryptV2Verify, "", nil, env)
	if err != nil {
		return err
	}
	if status != 0 {
		return &Refusal{Kind: TLSCryptV2Verify, Reason: fmt.Sprintf("exit status %d", status)}
	}
	return nil
}

// environment is what the hooks of clients begin with.
func (r *Runner) environment(c *ClientInfo) Env {
	d := r.daemon.Load()
	env := Environment(d, c)
	env.set("redirect_gateway", flag(d.RedirectGateway))
	return env
}
