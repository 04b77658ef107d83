package tlsctl

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// readVectors reads one of the shared vector files.
func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "testdata", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// hexBytes is bytes that a vector file spells in hex.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// A packetVector is a packet, and what is in it.
type packetVector struct {
	Name      string
	Direction string
	Auth      string
	KeyIndex  int      `json:"key_index"`
	Packet    hexBytes `json:"packet"`
	TCPFrame  hexBytes `json:"tcp_frame"`
	ReplayID  uint32   `json:"replay_packet_id"`
	Time      uint32   `json:"replay_time"`
	Plaintext hexBytes

	Opcode  Opcode
	KeyID   KeyID      `json:"key_id"`
	Session hexBytes   `json:"session_id"`
	Acks    []PacketID `json:"acks"`
	Remote  hexBytes   `json:"remote_session_id"`
	ID      PacketID   `json:"message_id"`
	Payload hexBytes
}

// want is the packet that parsing v must give.
func (v *packetVector) want() Packet {
	p := Packet{Opcode: v.Opcode, KeyID: v.KeyID, Acks: v.Acks, ID: v.ID, Payload: v.Payload}
	copy(p.Session[:], v.Session)
	copy(p.Remote[:], v.Remote)
	return p
}

func (v *packetVector) String() string {
	if v.Name != "" {
		return v.Name
	}
	return v.Direction + " " + hex.EncodeToString(v.Packet[:min(12, len(v.Packet))])
}

func checkPacket(t *testing.T, got, want Packet) {
	t.Helper()
	if !samePacket(got, want) {
		t.Errorf("got packet\n%+v, want\n%+v", got, want)
	}
}

// samePacket compares without regard to nil.
func samePacket(a, b Packet) bool {
	return a.Opcode == b.Opcode && a.KeyID == b.KeyID && a.Session == b.Session && slices.Equal(a.Acks, b.Acks) &&
		a.Remote == b.Remote && a.ID == b.ID && bytes.Equal(a.Payload, b.Payload)
}
