package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/rs/zerolog"

	"postern/server"
	"postern/server/config"
	"postern/server/hostnet"
	"postern/tun"
)

// openDevice is a device whose queues are open already.
type openDevice struct {
	tun.Device
	queues []tun.Queue
}

func (d *openDevice) Queues(int) ([]tun.Queue, error) { return d.queues, nil }

// makeDevices makes the device of every pool, gives it addresses and routes, and runs the scripts for that: these know
// of the first device only.
func (h *host) makeDevices(ctx context.Context, cfg *config.Config, parts *server.Parts, log zerolog.Logger) error {
	for _, p := range cfg.AllPools() {
		of := cfg.For(&p, nil)
		if err := h.openDevice(of, parts, log); err != nil {
			return err
		}
		if len(h.devices) > 1 {
			if err := errors.Join(h.giveAddresses(of), h.giveRoutes(of)); err != nil {
				return err
			}
			continue
		}
		if err := h.makeRunner(cfg, parts, log); err != nil {
			return err
		}
		if err := h.giveAddresses(of); err != nil {
			return err
		}
		if err := h.deviceUp(ctx, cfg, parts.Scripts, log); err != nil {
			return err
		}
		if err := h.giveRoutes(of); err != nil {
			return err
		}
		if err := parts.Scripts.RouteUp(ctx); err != nil {
			log.Warn().Err(err).Msg("route-up")
		}
	}
	return nil
}

// openDevice opens the device that cfg itself speaks of.
func (h *host) openDevice(cfg *config.Config, parts *server.Parts, log zerolog.Logger) error {
	dev, err := tun.Open(tun.Options{Name: cfg.Dev, MTU: cfg.MTU, Plain: cfg.NoOffload, Tap: cfg.Tap, Hardware: cfg.LLAddr})
	if err != nil {
		return fmt.Errorf("dev %s: %w", cfg.Dev, err)
	}
	if len(h.devices) == 0 {
		h.later(func() error { // when the device is gone
			if h.down != nil {
				h.down()
			}
			if parts.Scripts != nil {
				parts.Scripts.Close()
			}
			return nil
		})
	}
	h.later(dev.Close)
	queues, err := dev.Queues(parts.Lanes) // now, while there are rights to
	if err != nil {
		return fmt.Errorf("dev %s: %w", dev.Name(), err)
	}
	open := &openDevice{dev, queues}
	h.devices, parts.Devices = append(h.devices, open), append(parts.Devices, open)
	if cfg.Bridge { // whose network is the host's own
		return nil
	}
	overlaps, err := hostnet.Overlaps(insideNets(cfg), dev.Name())
	if err != nil {
		return fmt.Errorf("look at the host's networks: %w", err)
	}
	for _, o := range overlaps {
		log.Warn().Msg(o) // S087; warned of only, since an admin may mean it
	}
	return nil
}

// giveAddresses gives the newest device the addresses of cfg itself, and sets it up.
func (h *host) giveAddresses(cfg *config.Config) error {
	if cfg.NoIfconfig {
		return nil
	}
	var addrs []netip.Prefix
	for _, a := range []netip.Prefix{cfg.Addr4, cfg.Addr6} {
		if a.IsValid() && !(cfg.Bridge && a == cfg.Addr4) {
			addrs = append(addrs, a)
		}
	}
	name := h.devices[len(h.devices)-1].Name()
	if err := tun.Configure(name, addrs, cfg.MTU, cfg.TxQueue); err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	return nil
}

// giveRoutes leads the routes of cfg itself into the newest device.
func (h *host) giveRoutes(cfg *config.Config) error {
	if len(cfg.Routes) == 0 || cfg.NoRouteExec {
		return nil
	}
	routes := make([]tun.Route, len(cfg.Routes))
	for i, r := range cfg.Routes {
		routes[i] = tun.Route{Net: r.Net, Gateway: r.Gateway, Metric: r.Metric, Table: cfg.RouteTable}
	}
	name := h.devices[len(h.devices)-1].Name()
	undo, err := tun.AddRoutes(name, routes)
	if err != nil {
		return fmt.Errorf("routes through %s: %w", name, err)
	}
	h.later(undo)
	return nil
}

// insideNets is every network that lies behind the device that cfg itself speaks of.
func insideNets(cfg *config.Config) []netip.Prefix {
	var nets []netip.Prefix
	for _, a := range []netip.Prefix{cfg.Addr4, cfg.Addr6} {
		if a.IsValid() {
			nets = append(nets, a.Masked())
		}
	}
	for _, r := range cfg.Routes {
		nets = append(nets, r.Net.Masked())
	}
	return nets
}

func deviceNames(devices []*openDevice) string {
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = d.Name()
	}
	return strings.Join(names, " ")
}
