// A program: operations on maps, one after the other. Each takes maps (by number) and whole numbers.
//
// The Python side (native/program.py) writes programs: it knows which shapes belong together and where maps lie, sees
// that every operation's maps fit (operations.py), and says how much of every array they take. Here only a program's
// form is looked at, once, when it is made. A run compares the arrays' sizes.
#pragma once

#include <memory>

#include "operations.hpp"

namespace sharedgrad {
namespace {

// The map that a row of numbers stands for.
template <typename T>
Map<T> map_at(T* array, const std::int64_t* n) {
    const int lanes = int(n[3]), channels = int(n[4]), rounded = ceil_div(channels, lanes) * lanes;
    const int height = int(n[5]), width = int(n[6]), top = int(n[7]), bottom = int(n[8]), left = int(n[9]);
    if (n[11]) return {array, int(n[2]) * rounded, lanes, 1, height, width, top, bottom, left, int(n[10]), channels};
    return {array, int(n[2]), lanes, channels, height, width, top, bottom, left, int(n[10])};
}

// Why it cannot be read, or null.
template <typename T>
const char* check(const Program& p) {
    const std::int64_t map_count = p.maps.size() / kMapNumbers, end = p.code.size();
    for (std::int64_t i = 0; i < map_count; ++i) {
        const std::int64_t* const n = p.maps.data() + i * kMapNumbers;
        const auto size = [](std::int64_t number) { return number >= 0 && number <= kLargest; };
        if (n[0] < 0 || n[0] >= std::int64_t(p.sizes.size()) || n[1] < 0 ||
            !std::all_of(n + 2, n + kMapNumbers, size) || (n[3] != 1 && n[3] != kWidth<T>))
            return "a map makes no sense";
    }
    for (std::int64_t at = 0; at < end;) {
        if (p.code[at] < 0 || p.code[at] >= kOperationCount) return "there is no such operation";
        const Operation<T>& op = kOperations<T>[p.code[at]];
        const std::int64_t numbers = at + 1 + op.maps, next = numbers + op.numbers;
        if (next > end) return "the program ends within an operation";
        while (++at < numbers)
            if (p.code[at] < -1 || p.code[at] >= map_count) return "there is no such map";
        at = next;
    }
    return nullptr;
}

template <typename T>
std::ptrdiff_t run(const Program& p, void* const* arrays, std::ptrdiff_t begin, bool before_updates) {
    const std::size_t count = p.maps.size() / kMapNumbers;
    const std::unique_ptr<Map<T>[]> maps(new Map<T>[count]);
    for (std::size_t i = 0; i < count; ++i) {
        const std::int64_t* const row = p.maps.data() + i * kMapNumbers;
        maps[i] = map_at(static_cast<T*>(arrays[row[0]]) + row[1], row);
    }
    std::ptrdiff_t at = begin;
    while (at < std::ptrdiff_t(p.code.size())) {
        const std::int64_t* const code = p.code.data() + at;
        const Operation<T>& op = kOperations<T>[*code];
        if (before_updates && op.updates) break;
        op.run({maps.get(), code + 1, code + 1 + op.maps});
        at += 1 + op.maps + op.numbers;
    }
    return at;
}

}  // namespace
}  // namespace sharedgrad
