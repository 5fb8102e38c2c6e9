package proxy

import "math/bits"

// Sizes of buffers. A head that does not fit in smallBuffer is rare.
const (
	smallBuffer  = 8 << 10
	mediumBuffer = 16 << 10
	scratchSize  = 256 << 10
	maxHead      = 64 << 10 // of a message; 431 or 502 above it
	tooLarge     = maxHead + 1
	maxReplay    = 64 << 10 // of a request body, kept so that it can be sent again
	turnBytes    = 128 << 10
	slowRead     = 16 << 10 // what is read at once for a peer that takes it slowly

	sizes    = 6  // 8 KiB to 256 KiB
	keepFree = 64 // free buffers kept of one size, fewer of large ones
)

// freeLists keeps buffers of powers of two, smallBuffer and up.
type freeLists [sizes][][]byte

// get returns an empty buffer with room for size bytes, scratchSize at most.
func (f *freeLists) get(size int) []byte {
	c := class(size)
	if n := len(f[c]); n > 0 {
		b := f[c][n-1]
		f[c] = f[c][:n-1]
		return b[:0]
	}
	return make([]byte, 0, smallBuffer<<c)
}

func (f *freeLists) put(b []byte) {
	if cap(b) < smallBuffer || cap(b) > scratchSize {
		return
	}
	c := class(cap(b))
	if cap(b) == smallBuffer<<c && len(f[c]) < keepFree>>c {
		f[c] = append(f[c], b)
	}
}

func class(size int) int {
	if size <= smallBuffer {
		return 0
	}
	return bits.Len(uint(size-1)) - bits.Len(uint(smallBuffer-1))
}

// grow returns b in a buffer with room for size bytes in all.
func (f *freeLists) grow(b []byte, size int) []byte {
	if size <= cap(b) {
		return b
	}
	next := append(f.get(size), b...)
	f.put(b)
	return next
}
