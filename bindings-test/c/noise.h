/* noise.h - reproducible pseudo-random bytes, the same in the guest and on the host. */
#ifndef NOISE_H
#define NOISE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct noise {
    uint64_t state, word;
    unsigned left; /* bytes of `word` */
};

static inline struct noise noise_from(uint64_t seed)
{
    struct noise noise = {seed * UINT64_C(0x9e3779b97f4a7c15) + 1, 0, 0};

    return noise;
}

static inline uint64_t noise_word(struct noise *noise)
{
    /* xorshift64* */
    noise->state ^= noise->state >> 12;
    noise->state ^= noise->state << 25;
    noise->state ^= noise->state >> 27;
    return noise->state * UINT64_C(0x2545f4914f6cdd1d);
}

/* Writes the next `len` bytes; calls may divide the stream anywhere. */
static inline void noise_fill(struct noise *noise, uint8_t *place, size_t len)
{
    while (len > 0) {
        if (noise->left == 0 && len >= sizeof noise->word) {
            uint64_t word = noise_word(noise);
            memcpy(place, &word, sizeof word);
            place += sizeof word;
            len -= sizeof word;
            continue;
        }
        if (noise->left == 0) {
            noise->word = noise_word(noise);
            noise->left = sizeof noise->word;
        }
        *place++ = (uint8_t)noise->word;
        noise->word >>= 8;
        noise->left--;
        len--;
    }
}

/* Returns whether these are the next `len` bytes. */
static inline int noise_is_next(struct noise *noise, const uint8_t *data, size_t len)
{
    uint8_t expected[4096];

    while (len > 0) {
        size_t step = len < sizeof expected ? len : sizeof expected;
        noise_fill(noise, expected, step);
        if (memcmp(expected, data, step) != 0)
            return 0;
        data += step;
        len -= step;
    }
    return 1;
}

#endif
