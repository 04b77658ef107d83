// Package server is the running server: the one hub where control channel, logins, data path and devices meet.
package server
