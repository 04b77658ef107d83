package tun

import "encoding/binary"

// Every packet read from or written to an offload queue has a struct virtio_net_hdr before it, in the byte order of
// the machine (linux/virtio_net.h):
//
//	 0       1          2         4          6            8             10
//	+-------+----------+---------+----------+------------+-------------+
//	| flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |  IP packet ...
//	+-------+----------+---------+----------+------------+-------------+
//
//	flags     NEEDS_CSUM: the checksum at csum_start+csum_offset is to be completed from csum_start to the end
//	          DATA_VALID: the kernel has verified the checksum; nothing for us to do
//	gso_type  what to cut the packet into; the ECN bit is set beside it when TCP's CWR flag is
const vnetHdrLen = 10

const (
	vnetNeedsCsum = 1
	vnetECN       = 0x80
)

// parseVnetHdr reads a header; ok is false when b is too short for it.
func parseVnetHdr(b []byte) (g GSO, ok bool) {
	if len(b) < vnetHdrLen {
		return GSO{}, false
	}
	return GSO{
		NeedsCsum:  b[0]&vnetNeedsCsum != 0,
		Type:       b[1] &^ vnetECN, // Segment sees CWR in the header itself
		HdrLen:     binary.NativeEndian.Uint16(b[2:4]),
		Size:       binary.NativeEndian.Uint16(b[4:6]),
		CsumStart:  binary.NativeEndian.Uint16(b[6:8]),
		CsumOffset: binary.NativeEndian.Uint16(b[8:10]),
	}, true
}

// put writes the header into b, which has vnetHdrLen bytes.
func (g GSO) put(b []byte) {
	_ = b[vnetHdrLen-1]
	b[0], b[1] = 0, g.Type
	if g.NeedsCsum {
		b[0] = vnetNeedsCsum
	}
	binary.NativeEndian.PutUint16(b[2:4], g.HdrLen)
	binary.NativeEndian.PutUint16(b[4:6], g.Size)
	binary.NativeEndian.PutUint16(b[6:8], g.CsumStart)
	binary.NativeEndian.PutUint16(b[8:10], g.CsumOffset)
}
