package main

import (
	"os"
	"runtime"

	"github.com/rs/zerolog"

	"postern/server/config"
	"postern/server/hostnet"
)

// threadsBeside is how many threads the Go runtime may want beside one for each processor: its own, and those that
// wait in the kernel.
const threadsBeside = 8

// spareThreads keeps the number of threads below what the unit file allows, as those of Debian's openvpn packages do
// with ten: one thread too many would be the end of the process.
func spareThreads(cfg *config.Config, log zerolog.Logger) {
	limit, known := hostnet.ThreadLimit(os.Geteuid() == 0 && cfg.User == "")
	if !known || limit >= runtime.GOMAXPROCS(0)+threadsBeside {
		return
	}
	processors := max(limit-threadsBeside, 1)
	runtime.GOMAXPROCS(processors)
	log.Warn().Int("limit", limit).Int("processors", processors).
		Msg("only so many threads are allowed here: write TasksMax=infinity and LimitNPROC=infinity into a drop-in of the unit file to use all processors")
}
