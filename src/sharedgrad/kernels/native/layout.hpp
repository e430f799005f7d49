// How maps lie in memory: (⌈N/I⌉, C, top + H + bottom, left + W + right, I), with I samples side by side.
//
// I is a power of two, at most the number of a vector's lanes V, and a vector holds V/I neighbouring columns of I
// samples: with many samples one column of V, with a single one V columns of it. Whatever the number of channels and
// samples, every lane works. The margins are zeros that windows reach. A vector (N, K) is a map of K channels and one
// cell with I = 1, and so is every plain array (N, C, H, W).
#pragma once

#include <algorithm>

#include "even_ranges.hpp"
#include "partial.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sharedgrad {
namespace {

template <typename T>
struct Map {
    T* data;  // (blocks, channels, top + height + bottom, left + width + right, lanes)
    int samples, lanes, channels, height, width;  // N, I, C, H, W
    int top, bottom, left, right;                 // margins

    int blocks() const { return (samples + lanes - 1) / lanes; }
    int alive(int block) const { return std::min(lanes, samples - block * lanes); }  // the other lanes are padding
    std::ptrdiff_t row() const { return std::ptrdiff_t(left + width + right) * lanes; }
    // An odd number of lines from channel to channel: at powers of two they would all fall into a few sets of a cache.
    std::ptrdiff_t channel() const {
        const std::ptrdiff_t cells = std::ptrdiff_t(left + width + right) * (top + height + bottom);
        return (lanes > 1 ? cells | 1 : cells) * lanes;
    }
    std::ptrdiff_t block() const { return channel() * channels; }
    std::ptrdiff_t size() const { return block() * blocks(); }
    std::ptrdiff_t used() const { return std::ptrdiff_t(width) * lanes; }  // of a row
    T* cell(int block, int c, int h) const {
        return data + block * this->block() + c * channel() + (top + h) * row() + std::ptrdiff_t(left) * lanes;
    }
    bool bare() const { return !(top | bottom | left | right); }
    bool plain() const { return lanes == 1 && bare(); }
    double operations() const { return double(samples) * channels * height * width; }
};

}  // namespace
}  // namespace sharedgrad
