// How maps lie in memory: (⌈N/V⌉, C, top + H + bottom, left + W + right, V), with the samples of a vector side by side.
//
// The margins are zeros that windows reach. With up to V/2 samples a map lies *by channel* instead: the channels of a
// sample take the places of samples, (N·⌈C/V⌉, top + H + bottom, left + W + right, V). To all code that looks at each
// channel by itself it is a map of N·⌈C/V⌉·V samples of one channel.
//
// A plain array (N, C, H, W) is a map with one lane and no margins, and so is a vector (N, K), of K channels and one
// cell.
#pragma once

#include "even_ranges.hpp"
#include "partial.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sharedgrad {
namespace {

template <typename T>
struct Map {
    T* data;  // (blocks, channels, top + height + bottom, left + width + right, lanes)
    int samples, lanes, channels, height, width;  // N, V or 1, C, H, W
    int top, bottom, left, right;                 // margins
    int lane_channels = 0;  // C where the map lies by channel: then `samples` is N·⌈C/V⌉·V and `channels` is 1

    bool by_channel() const { return lane_channels > 0; }
    int blocks_of_sample() const { return (lane_channels + lanes - 1) / lanes; }
    // The same map as its shape says, (N, C, H, W): to compare and to count, not for addresses.
    Map logical() const {
        Map m = *this;
        if (by_channel()) m.samples = blocks() / blocks_of_sample(), m.channels = lane_channels;
        return m;
    }
    int blocks() const { return (samples + lanes - 1) / lanes; }
    int alive(int block) const {  // the other lanes are padding
        return by_channel() ? std::min(lanes, lane_channels - block % blocks_of_sample() * lanes)
                            : std::min(lanes, samples - block * lanes);
    }
    // Which number of a plain (N, C) belongs to a lane of a block's channel.
    std::ptrdiff_t number(int block, int c, int lane) const {
        if (!by_channel()) return (std::ptrdiff_t(block) * lanes + lane) * channels + c;
        const int sample = block / blocks_of_sample();
        return std::ptrdiff_t(sample) * lane_channels + block % blocks_of_sample() * lanes + lane;
    }
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

// Zeros in the cells of one channel.
template <typename T>
void clear(const Map<T>& map, int block, int c) {
    for (int h = 0; h < map.height; ++h) std::fill_n(map.cell(block, c, h), map.used(), T(0));
}

// function(block, channel) for all channels, where the whole takes so many operations
template <typename T, typename Function>
void channels_of(const Map<T>& map, double operations, const Function& function) {
    parallel(map.blocks() * map.channels, operations,
             [&, C = map.channels](int task) { function(task / C, task % C); });
}

}  // namespace
}  // namespace sharedgrad
