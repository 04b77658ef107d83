package main

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"postern/cmd/lab"
)

const (
	wireguardSockets = "/var/run/wireguard/"
	devicePrefix     = "ptb"
)

// startWireGuard starts wireguard-go as the gateway and on every station, with the addresses that the others have.
func (g *gateway) startWireGuard() error {
	ctx := g.b.ctx
	serverKey, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	router := g.lab.Host("router")
	conf := fmt.Sprintf("private_key=%x\nlisten_port=1194\n", serverKey.Bytes())
	for i := range stations {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		addr := fmt.Sprintf("10.84.0.%d", i+2)
		conf += fmt.Sprintf("public_key=%s\nallowed_ip=%s/32\n", hex.EncodeToString(key.PublicKey().Bytes()), addr)
		host := g.lab.Host(station(i))
		mine := fmt.Sprintf("private_key=%x\npublic_key=%x\nendpoint=%v:1194\nallowed_ip=10.84.0.0/24\nallowed_ip=172.29.7.0/24\n",
			key.Bytes(), serverKey.PublicKey().Bytes(), router.Wan4)
		if _, err := g.tunnel(host, fmt.Sprintf(devicePrefix+"%d", i+1), addr+"/24", mine); err != nil {
			return err
		}
		if _, err := host.Run(ctx, "ip", "route", "add", "172.29.7.0/24", "dev", fmt.Sprintf(devicePrefix+"%d", i+1)); err != nil {
			return err
		}
	}
	g.server, err = g.tunnel(router, devicePrefix+"0", "10.84.0.1/24", conf)
	if err != nil {
		return err
	}
	for i := range stations {
		host := g.lab.Host(station(i))
		if err := lab.Until(10*time.Second, func() error {
			p, err := host.Ping(ctx, lab.Lan4, 1, 56, 100*time.Millisecond)
			if err == nil && p.Lost() > 0 {
				err = fmt.Errorf("no answer from %s", lab.Lan4)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// tunnel starts one wireguard-go and configures it. The device's name names its socket, too, which all namespaces share.
func (g *gateway) tunnel(h *lab.Host, device, addr, conf string) (*lab.Process, error) {
	socket := wireguardSockets + device + ".sock"
	_ = os.Remove(socket) // of a killed run
	p, err := h.Start(device+".log", g.b.wireguard, "-f", device)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	if err := lab.Until(10*time.Second, func() error {
		conn, err = net.Dial("unix", socket)
		return err
	}); err != nil {
		return nil, fmt.Errorf("%w: %s", err, p.Output())
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "set=1\n%s\n", conf); err != nil {
		return nil, err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "errno=0" {
		return nil, fmt.Errorf("configure %s: %q, %v", device, answer, err)
	}
	for _, args := range [][]string{{"addr", "add", addr, "dev", device}, {"link", "set", device, "up", "mtu", "1420"}} {
		if _, err := h.Run(g.b.ctx, append([]string{"ip"}, args...)...); err != nil {
			return nil, err
		}
	}
	return p, nil
}
