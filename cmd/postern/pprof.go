package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"sync"
)

// openPprof serves Go's profiles on a unix socket of mode 0600 that unix:PATH names; "" is nowhere. close ends it.
//
//	curl --unix-socket PATH http://postern/debug/pprof/profile?seconds=10 >cpu.pprof; go tool pprof cpu.pprof
func openPprof(where string) (close func(), err error) {
	if where == "" {
		return func() {}, nil
	}
	path, ok := strings.CutPrefix(where, "unix:")
	if !ok || path == "" {
		return nil, fmt.Errorf("--pprof %q: want unix:PATH; profiles are for nobody but this machine's root", where)
	}
	l, err := listenUnix("--pprof", path)
	if err != nil {
		return nil, err
	}
	// Before anybody can know the name: the directory's rights and this are all that guards it.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("--pprof: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	srv := &http.Server{Handler: mux}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "postern: pprof:", err)
		}
	})
	return func() {
		srv.Close()
		wg.Wait()
	}, nil
}
