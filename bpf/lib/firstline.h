/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The first lines of HTTP/1, read byte by byte through tables, so that it does
 * not matter how a stream is cut into segments. The tests of the Go side read
 * these very tables from the object and hold them against net/http. */
#pragma once

#include "types.h"

/* Bytes by what they may mean in a first line. */
enum byte_class {
	B_OTHER, /* printable, or not ASCII */
	B_CTL,
	B_CR,
	B_LF,
	B_SP,
	B_CAPITAL, /* but for those below */
	B_H,
	B_I,
	B_P,
	B_R,
	B_T,
	B_SLASH,
	B_DOT,
	B_LOW,  /* 0, 1: what versions are made of */
	B_HIGH, /* 2 to 9 */
	B_STAR, /* or h: what a target begins with, if not with a slash */
	BYTE_CLASSES,
};

const __u8 byte_class[256] = {
	[0 ... 9] = B_CTL,         ['\n'] = B_LF,    [11 ... 12] = B_CTL,     ['\r'] = B_CR, [14 ... 31] = B_CTL,
	[' '] = B_SP,              ['*'] = B_STAR,   ['.'] = B_DOT,           ['/'] = B_SLASH,
	['0' ... '1'] = B_LOW,     ['2' ... '9'] = B_HIGH,
	['A' ... 'G'] = B_CAPITAL, ['H'] = B_H,      ['I'] = B_I,             ['J' ... 'O'] = B_CAPITAL,
	['P'] = B_P,               ['Q'] = B_CAPITAL, ['R'] = B_R,            ['S'] = B_CAPITAL,
	['T'] = B_T,               ['U' ... 'Z'] = B_CAPITAL, ['h'] = B_STAR, [127] = B_CTL,
};

/* What was read of a request. Up to BEGUN nothing is awaited; from then on
 * another request line means that the connection pipelines. That one must be
 * whole, for bodies are full of words. */
enum request_state {
	Q_START,
	Q_P, Q_PR, Q_PRI, Q_PRI_, /* PRI *, HTTP/2's preface */
	Q_METHOD, Q_SPACE,
	Q_BEGUN, /* a method, a space and the first byte of a target */
	Q_HEAD, Q_HEAD_LF, Q_HEAD_CR,
	Q_NEXT, /* the head has ended: a body or the next request may begin */
	Q_METHOD2, Q_SPACE2, Q_TARGET2,
	Q_H2, Q_T2, Q_TT2, Q_P2, Q_SLASH2, Q_MAJOR2, Q_DOT2, Q_MINOR2, Q_END2, Q_LF2,
	Q_NONE, /* no request; from here on nothing more is read of the segment */
	Q_PREFACE,
	Q_BODY,
	Q_PIPELINED,
};

#define Q_STOP Q_NONE /* the first state that no byte leaves */

/* clang-format off */
#define NONE Q_NONE
#define BODY Q_BODY
#define HEAD Q_HEAD
#define METH Q_METHOD
#define MET2 Q_METHOD2
#define TAR2 Q_TARGET2
const __u8 request_next[32][BYTE_CLASSES] = {
	/*              other  CTL    CR         LF           SP         A-Z    H      I      P      R      T      /          .       01         2-9    *h */
	[Q_START]   = { NONE,  NONE,  Q_START,   Q_START,     NONE,      METH,  METH,  METH,  Q_P,   METH,  METH,  NONE,      NONE,   NONE,      NONE,  NONE },
	[Q_P]       = { NONE,  NONE,  NONE,      NONE,        Q_SPACE,   METH,  METH,  METH,  METH,  Q_PR,  METH,  NONE,      NONE,   NONE,      NONE,  NONE },
	[Q_PR]      = { NONE,  NONE,  NONE,      NONE,        Q_SPACE,   METH,  METH,  Q_PRI, METH,  METH,  METH,  NONE,      NONE,   NONE,      NONE,  NONE },
	[Q_PRI]     = { NONE,  NONE,  NONE,      NONE,        Q_PRI_,    METH,  METH,  METH,  METH,  METH,  METH,  NONE,      NONE,   NONE,      NONE,  NONE },
	[Q_PRI_]    = { NONE,  NONE,  NONE,      NONE,        NONE,      NONE,  NONE,  NONE,  NONE,  NONE,  NONE,  Q_BEGUN,   NONE,   NONE,      NONE,  Q_PREFACE },
	[Q_METHOD]  = { NONE,  NONE,  NONE,      NONE,        Q_SPACE,   METH,  METH,  METH,  METH,  METH,  METH,  NONE,      NONE,   NONE,      NONE,  NONE },
	[Q_SPACE]   = { NONE,  NONE,  NONE,      NONE,        NONE,      NONE,  NONE,  NONE,  NONE,  NONE,  NONE,  Q_BEGUN,   NONE,   NONE,      NONE,  Q_BEGUN },
	[Q_BEGUN]   = { HEAD,  HEAD,  HEAD,      Q_HEAD_LF,   HEAD,      HEAD,  HEAD,  HEAD,  HEAD,  HEAD,  HEAD,  HEAD,      HEAD,   HEAD,      HEAD,  HEAD },
	[Q_HEAD]    = { HEAD,  HEAD,  HEAD,      Q_HEAD_LF,   HEAD,      HEAD,  HEAD,  HEAD,  HEAD,  HEAD,  HEAD,  HEAD,      HEAD,   HEAD,      HEAD,  HEAD },
	[Q_HEAD_LF] = { HEAD,  HEAD,  Q_HEAD_CR, Q_NEXT,      HEAD,      HEAD,  HEAD,  HEAD,  HEAD,  HEAD,  HEAD,  HEAD,      HEAD,   HEAD,      HEAD,  HEAD },
	[Q_HEAD_CR] = { HEAD,  HEAD,  HEAD,      Q_NEXT,      HEAD,      HEAD,  HEAD,  HEAD,  HEAD,  HEAD,  HEAD,  HEAD,      HEAD,   HEAD,      HEAD,  HEAD },
	[Q_NEXT]    = { BODY,  BODY,  Q_NEXT,    Q_NEXT,      BODY,      MET2,  MET2,  MET2,  MET2,  MET2,  MET2,  BODY,      BODY,   BODY,      BODY,  BODY },
	[Q_METHOD2] = { BODY,  BODY,  BODY,      BODY,        Q_SPACE2,  MET2,  MET2,  MET2,  MET2,  MET2,  MET2,  BODY,      BODY,   BODY,      BODY,  BODY },
	[Q_SPACE2]  = { BODY,  BODY,  BODY,      BODY,        BODY,      BODY,  BODY,  BODY,  BODY,  BODY,  BODY,  TAR2,      BODY,   BODY,      BODY,  TAR2 },
	[Q_TARGET2] = { TAR2,  BODY,  BODY,      BODY,        Q_H2,      TAR2,  TAR2,  TAR2,  TAR2,  TAR2,  TAR2,  TAR2,      TAR2,   TAR2,      TAR2,  TAR2 },
	[Q_H2]      = { BODY,  BODY,  BODY,      BODY,        BODY,      BODY,  Q_T2,  BODY,  BODY,  BODY,  BODY,  BODY,      BODY,   BODY,      BODY,  BODY },
	[Q_T2]      = { BODY,  BODY,  BODY,      BODY,        BODY,      BODY,  BODY,  BODY,  BODY,  BODY,  Q_TT2, BODY,      BODY,   BODY,      BODY,  BODY },
	[Q_TT2]     = { BODY,  BODY,  BODY,      BODY,        BODY,      BODY,  BODY,  BODY,  BODY,  BODY,  Q_P2,  BODY,      BODY,   BODY,      BODY,  BODY },
	[Q_P2]      = { BODY,  BODY,  BODY,      BODY,        BODY,      BODY,  BODY,  BODY,  Q_SLASH2, BODY, BODY, BODY,     BODY,   BODY,      BODY,  BODY },
	[Q_SLASH2]  = { BODY,  BODY,  BODY,      BODY,        BODY,      BODY,  BODY,  BODY,  BODY,  BODY,  BODY,  Q_MAJOR2,  BODY,   BODY,      BODY,  BODY },
	[Q_MAJOR2]  = { BODY,  BODY,  BODY,      BODY,        BODY,      BODY,  BODY,  BODY,  BODY,  BODY,  BODY,  BODY,      BODY,   Q_DOT2,    BODY,  BODY },
	[Q_DOT2]    = { BODY,  BODY,  BODY,      BODY,        BODY,      BODY,  BODY,  BODY,  BODY,  BODY,  BODY,  BODY,      Q_MINOR2, BODY,    BODY,  BODY },
	[Q_MINOR2]  = { BODY,  BODY,  BODY,      BODY,        BODY,      BODY,  BODY,  BODY,  BODY,  BODY,  BODY,  BODY,      BODY,   Q_END2,    BODY,  BODY },
	[Q_END2]    = { BODY,  BODY,  Q_LF2,     Q_PIPELINED, BODY,      BODY,  BODY,  BODY,  BODY,  BODY,  BODY,  BODY,      BODY,   BODY,      BODY,  BODY },
	[Q_LF2]     = { BODY,  BODY,  BODY,      Q_PIPELINED, BODY,      BODY,  BODY,  BODY,  BODY,  BODY,  BODY,  BODY,      BODY,   BODY,      BODY,  BODY },
};
#undef NONE
#undef BODY
#undef HEAD
#undef METH
#undef MET2
#undef TAR2
/* clang-format on */

/* What was read of a response. */
enum response_state {
	R_START,
	R_T, R_TT, R_P, R_SLASH, R_MAJOR, R_DOT, R_MINOR, R_SPACE, R_DIGIT1,
	R_DIGIT2, R_DIGIT3, R_END, /* one, two, three digits were read */
	R_STATUS, /* and what ends them: nothing more is read, but of an interim answer the head */
	R_HEAD, R_HEAD_LF, R_HEAD_CR,
	R_BAD, /* no response */
};

/* clang-format off */
#define BAD R_BAD
#define HEAD R_HEAD
#define STAT R_STATUS
const __u8 response_next[32][BYTE_CLASSES] = {
	/*              other  CTL    CR         LF         SP        A-Z    H      I      P        R      T      /        .        01        2-9       *h */
	[R_START]   = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   R_T,   BAD,   BAD,     BAD,   BAD,   BAD,     BAD,     BAD,      BAD,      BAD },
	[R_T]       = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   BAD,     BAD,   R_TT,  BAD,     BAD,     BAD,      BAD,      BAD },
	[R_TT]      = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   BAD,     BAD,   R_P,   BAD,     BAD,     BAD,      BAD,      BAD },
	[R_P]       = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   R_SLASH, BAD,   BAD,   BAD,     BAD,     BAD,      BAD,      BAD },
	[R_SLASH]   = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   BAD,     BAD,   BAD,   R_MAJOR, BAD,     BAD,      BAD,      BAD },
	[R_MAJOR]   = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   BAD,     BAD,   BAD,   BAD,     BAD,     R_DOT,    BAD,      BAD },
	[R_DOT]     = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   BAD,     BAD,   BAD,   BAD,     R_MINOR, BAD,      BAD,      BAD },
	[R_MINOR]   = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   BAD,     BAD,   BAD,   BAD,     BAD,     R_SPACE,  BAD,      BAD },
	[R_SPACE]   = { BAD,   BAD,   BAD,       BAD,       R_DIGIT1, BAD,   BAD,   BAD,   BAD,     BAD,   BAD,   BAD,     BAD,     BAD,      BAD,      BAD },
	[R_DIGIT1]  = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   BAD,     BAD,   BAD,   BAD,     BAD,     R_DIGIT2, R_DIGIT2, BAD },
	[R_DIGIT2]  = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   BAD,     BAD,   BAD,   BAD,     BAD,     R_DIGIT3, R_DIGIT3, BAD },
	[R_DIGIT3]  = { BAD,   BAD,   BAD,       BAD,       BAD,      BAD,   BAD,   BAD,   BAD,     BAD,   BAD,   BAD,     BAD,     R_END,    R_END,    BAD },
	[R_END]     = { BAD,   BAD,   STAT,      BAD,       STAT,     BAD,   BAD,   BAD,   BAD,     BAD,   BAD,   BAD,     BAD,     BAD,      BAD,      BAD },
	[R_HEAD]    = { HEAD,  HEAD,  HEAD,      R_HEAD_LF, HEAD,     HEAD,  HEAD,  HEAD,  HEAD,    HEAD,  HEAD,  HEAD,    HEAD,    HEAD,     HEAD,     HEAD },
	[R_HEAD_LF] = { HEAD,  HEAD,  R_HEAD_CR, R_START,   HEAD,     HEAD,  HEAD,  HEAD,  HEAD,    HEAD,  HEAD,  HEAD,    HEAD,    HEAD,     HEAD,     HEAD },
	[R_HEAD_CR] = { HEAD,  HEAD,  HEAD,      R_START,   HEAD,     HEAD,  HEAD,  HEAD,  HEAD,    HEAD,  HEAD,  HEAD,    HEAD,    HEAD,     HEAD,     HEAD },
};
#undef BAD
#undef HEAD
#undef STAT
/* clang-format on */

/* One step. The tables are longer than their states and the indices masked: so
 * the verifier knows them to be inside. */
static __always_inline __u64 step(const __u8 next[32][BYTE_CLASSES], __u64 state, __u8 b)
{
	__u64 i = (state & 31) * BYTE_CLASSES + (byte_class[b] & (BYTE_CLASSES - 1));

	asm volatile("" : "+r"(i));
	return ((const __u8 *)next)[i & (32 * BYTE_CLASSES - 1)];
}
