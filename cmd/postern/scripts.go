package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"postern/server"
	"postern/server/config"
	"postern/server/hooks"
	"postern/server/hostnet"
	"postern/tun"
)

// makeRunner readies the scripts, once the device is there.
func (h *host) makeRunner(cfg *config.Config, parts *server.Parts, log zerolog.Logger) error {
	var err error
	if parts.NetGateway, parts.NetGateway6, err = hostnet.DefaultGateways(); err != nil {
		log.Debug().Err(err).Msg("scripts are told that there is no default gateway")
	}
	parts.Scripts, err = hooks.New(server.ScriptOptions(cfg, log), server.Facts(cfg, parts))
	if err != nil {
		return fmt.Errorf("scripts: %w", err)
	}
	return nil
}

// deviceUp runs the up script. From then on the down script is due.
func (h *host) deviceUp(ctx context.Context, cfg *config.Config, scripts *hooks.Runner, log zerolog.Logger) error {
	if err := scripts.Up(ctx, hooks.Init); err != nil {
		return err
	}
	at := context.WithoutCancel(ctx)
	h.down = sync.OnceFunc(func() {
		if err := scripts.Down(at, hooks.Init, endedBy(ctx)); err != nil {
			log.Warn().Err(err).Msg("down")
		}
	})
	before := sync.OnceFunc(func() {
		if len(cfg.Routes) > 0 {
			if err := scripts.RoutePreDown(at, hooks.Init, endedBy(ctx)); err != nil {
				log.Warn().Err(err).Msg("route-pre-down")
			}
		}
		if cfg.Scripts.DownPre {
			h.down()
		}
	})
	if scripts.Has(hooks.RoutePreDown) || cfg.Scripts.DownPre && scripts.Has(hooks.Down) {
		for i, q := range h.devices[0].queues {
			h.devices[0].queues[i] = lastQueue{q, before}
		}
	}
	return nil
}

// endedBy is the signal that ends the server, as the down script is told.
func endedBy(ctx context.Context) string {
	switch why := context.Cause(ctx); {
	case why == nil:
		return ""
	case strings.Contains(why.Error(), "interrupt"):
		return "sigint"
	}
	return "sigterm"
}

// A lastQueue has the scripts run that are to run before the device goes.
type lastQueue struct {
	tun.Queue
	before func()
}

func (q lastQueue) Close() error {
	q.before()
	return q.Queue.Close()
}

// stillRunnable insists that the user whom the server now is can run the scripts that are still to come: or else
// everybody would be kept out, one login after the other.
func stillRunnable(cfg *config.Config, scripts *hooks.Runner) error {
	if err := scripts.Check(hooks.Up, hooks.RouteUp); err != nil {
		return fmt.Errorf("without privileges (user %s, group %s) scripts could not run: %w", cfg.User, cfg.Group, err)
	}
	return nil
}
