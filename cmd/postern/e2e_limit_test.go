package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/cmd/lab"
)

// received is how many bytes the client's TUN device has received.
func (v *vpn) received() (float64, error) {
	out, err := v.host.Run(v.f.ctx, "ip", "-s", "-j", "link", "show", "dev", "tun0")
	if err != nil {
		return 0, err
	}
	var links []struct {
		Stats struct {
			RX struct{ Bytes float64 } `json:"rx"`
		} `json:"stats64"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		return 0, fmt.Errorf("%s: %w", out, err)
	}
	if len(links) != 1 {
		return 0, fmt.Errorf("not one device: %s", out)
	}
	return links[0].Stats.RX.Bytes, nil
}

// download has the client download over TCP, until ctx is done, as fast as it can, and counts what has come.
func (v *vpn) download(ctx context.Context, from *net.TCPAddr) (*atomic.Int64, error) {
	n := new(atomic.Int64)
	return n, v.host.Do(func() error {
		conn, err := net.DialTCP("tcp", nil, from)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { conn.Close() })
		go func() {
			for b := make([]byte, 1<<16); ; {
				got, err := conn.Read(b)
				if err != nil {
					return
				}
				n.Add(int64(got))
			}
		}()
		return nil
	})
}

// pour has the client download over UDP, until ctx is done: so many bits a second, whether they arrive or not.
func (v *vpn) pour(ctx context.Context, rate float64, port int) error {
	const payload, headers = 1200, 28
	at := &net.UDPAddr{IP: net.ParseIP(lab.Lan4), Port: port}
	var near, far *net.UDPConn
	err := v.f.Host("lan").Do(func() (err error) {
		far, err = net.ListenUDP("udp4", at)
		return err
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { far.Close() })
	if err := v.host.Do(func() (err error) { near, err = net.DialUDP("udp4", nil, at); return err }); err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { near.Close() })
	if _, err := near.Write([]byte("hello")); err != nil {
		return err
	}
	if err := far.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, back, err := far.ReadFromUDPAddrPort(make([]byte, 100)) // where the gateway's address translation leads to the client
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 2*payload)
		for ctx.Err() == nil {
			_, _ = near.Read(b)
		}
	}()
	go func() {
		b := make([]byte, payload)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		began, sent := time.Now(), 0.0
		for ctx.Err() == nil {
			for due := time.Since(began).Seconds() * rate / 8; sent < due; sent += payload + headers {
				_, _ = far.WriteToUDPAddrPort(b, back)
			}
			<-tick.C
		}
	}()
	return nil
}

// Twenty stock clients that all want more than there is share a pool's limit within 10 % of each other, whether they
// download over TCP or UDP, and all of them together have what the pool has within 5 %.
func TestE2EClientsShareBottleneck(t *testing.T) {
	const clients, limit, long = 20, 20e6, 10 * time.Second
	var names []string
	for i := range clients {
		names = append(names, fmt.Sprintf("c%02d", i))
	}
	f := newField(t, names...)
	f.serveConf(f.policyConf("pool slow", "network 10.84.0.0/24", "dev tun-slow", "route 172.29.7.0/24", "limit down 20mbit", "end",
		"policy all", "match any", "pool slow", "allow any", "end"))
	var all []*vpn
	for _, name := range names {
		all = append(all, f.dial(name))
	}
	for _, v := range all {
		v.up(1)
	}
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	source := f.source(ctx)
	for i, v := range all {
		if i%2 == 0 {
			_, err := v.download(ctx, source)
			f.must(err)
		} else {
			f.must(v.pour(ctx, 3*limit/clients, 7101+i))
		}
	}
	rate := make([]float64, clients)
	time.Sleep(3 * time.Second) // what may come at once is through
	var measured sync.WaitGroup
	for i, v := range all {
		measured.Go(func() {
			before, err := v.received()
			if err != nil {
				t.Error(err)
			}
			began := time.Now()
			time.Sleep(long)
			after, err := v.received()
			if err != nil {
				t.Error(err)
			}
			rate[i] = (after - before) * 8 / time.Since(began).Seconds()
		})
	}
	measured.Wait()
	sum := 0.0
	for i, r := range rate {
		t.Logf("%s: %.3f Mbit/s", names[i], r/1e6)
		sum += r
	}
	least, most := slices.Min(rate), slices.Max(rate)
	if most > least*1.10 {
		t.Errorf("one has %.3f Mbit/s, another %.3f: more than 10 %% apart", most/1e6, least/1e6)
	}
	if sum < limit*0.95 || sum > limit*1.05 {
		t.Errorf("all together have %.2f Mbit/s, want %.0f within 5 %%", sum/1e6, limit/1e6)
	}
}
