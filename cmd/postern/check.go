package main

import "github.com/urfave/cli/v2"

// checkCommand is `postern check`: it judges a configuration and opens nothing but its files.
func checkCommand() *cli.Command { return &cli.Command{Name: "check"} }
