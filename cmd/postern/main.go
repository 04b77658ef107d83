// Command postern is an OpenVPN-compatible remote-access gateway.
package main

func main() {}
