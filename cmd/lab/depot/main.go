// Command depot gives and takes bytes over TCP and compares checksums: the host behind the gateway in end-to-end
// tests and the demo.
//
//	depot serve ADDR              serves until killed
//	depot get ADDR BYTES [RATE]   downloads and checks; RATE bounds it, in bytes per second
//	depot put ADDR BYTES          uploads and checks
//	depot echo ADDR               answers TCP connections and UDP packets until killed
//	depot try tcp|udp ADDR        fails if that gets no answer there
//
// A request is one line, "get SEED BYTES RATE" or "put SEED BYTES 0"; the bytes are a ChaCha8 stream of the seed, followed
// (get) or answered (put) by a line with their SHA-256.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "depot:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) >= 3 && len(args) <= 4 && (args[0] == "get" || args[0] == "put"):
		n, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			return err
		}
		rate := int64(0)
		if len(args) == 4 {
			if rate, err = strconv.ParseInt(args[3], 10, 64); err != nil {
				return err
			}
		}
		return fetch(args[0], args[1], n, rate)
	}
	switch {
	case len(args) == 2 && args[0] == "echo":
		return echo(args[1])
	case len(args) == 3 && args[0] == "try":
		return try(args[1], args[2])
	}
	return errors.New("usage: depot serve ADDR | get ADDR BYTES [RATE] | put ADDR BYTES | echo ADDR | try tcp|udp ADDR")
}

// stream returns n reproducible bytes, hashed as they are read.
func stream(seed string, n int64, h hash.Hash) io.Reader {
	return io.TeeReader(io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte(seed))), n), h)
}

func serve(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("depot serves on", l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := answer(conn); err != nil {
				fmt.Println("request:", err)
			}
		}()
	}
}

func answer(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 1<<16)
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	f := strings.Fields(line)
	if len(f) != 4 {
		return fmt.Errorf("request %q", line)
	}
	n, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return err
	}
	rate, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil {
		return err
	}
	h := sha256.New()
	if f[0] == "get" {
		err = pace(conn, stream(f[1], n, h), rate)
	} else {
		_, err = io.Copy(h, io.LimitReader(in, n))
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conn, "%x\n", h.Sum(nil))
	return err
}

// pace copies at most rate bytes a second; 0 is without bound.
func pace(w io.Writer, r io.Reader, rate int64) error {
	if rate == 0 {
		_, err := io.Copy(w, r)
		return err
	}
	const steps = 50 // a second
	tick := time.NewTicker(time.Second / steps)
	defer tick.Stop()
	for range tick.C {
		if _, err := io.CopyN(w, r, rate/steps); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func fetch(what, addr string, n, rate int64) error {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	seed := strconv.FormatInt(time.Now().UnixNano(), 36)
	if _, err := fmt.Fprintf(conn, "%s %s %d %d\n", what, seed, n, rate); err != nil {
		return err
	}
	start := time.Now()
	in := bufio.NewReaderSize(conn, 1<<16)
	h, want := sha256.New(), sha256.New()
	if what == "get" {
		_, err = io.Copy(h, io.LimitReader(in, n))
		if err == nil {
			_, err = io.Copy(io.Discard, stream(seed, n, want))
		}
	} else {
		_, err = io.Copy(conn, stream(seed, n, h))
		want = h
	}
	if err != nil {
		return err
	}
	theirs, err := in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("no checksum after %d bytes: %w", n, err)
	}
	took := time.Since(start)
	if ours := hex.EncodeToString(want.Sum(nil)); strings.TrimSpace(theirs) != ours || hex.EncodeToString(h.Sum(nil)) != ours {
		return fmt.Errorf("checksums differ: %s here, %s there", ours, strings.TrimSpace(theirs))
	}
	fmt.Printf("%s %d bytes in %.2f s, %.0f Mbit/s, checksums equal\n", what, n, took.Seconds(), float64(n)*8/took.Seconds()/1e6)
	return nil
}

const hello = "hello"

// echo answers hello with hello.
func echo(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	fmt.Println("echo serves on", l.Addr())
	go func() {
		b := make([]byte, 100)
		for {
			if n, from, err := u.ReadFrom(b); err == nil {
				u.WriteTo(b[:n], from)
			}
		}
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			io.CopyN(conn, conn, int64(len(hello)))
		}()
	}
}

// try says hello, and waits two seconds for the answer.
func try(network, addr string) error {
	deadline := time.Now().Add(2 * time.Second)
	conn, err := (&net.Dialer{Deadline: deadline}).Dial(network, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	if _, err := io.WriteString(conn, hello); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, len(hello)))
	return err
}
