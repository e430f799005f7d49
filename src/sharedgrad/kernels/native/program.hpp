// A program: operations on maps, one after the other. Each takes maps (by number) and whole numbers.
//
// The Python side (native/program.py) writes programs: it knows which shapes belong together and where maps lie, sees
// that every operation's maps fit (operations.py), and says how much of every array they take. Here only a program's
// form is looked at, once, when it is made. A run compares the arrays' sizes.
#pragma once

#include "operations.hpp"

namespace sharedgrad {
namespace {

using ProgramMemory = Owner<kMaps>;  // while the operations take theirs
static_assert(disjoint<ProgramMemory, WindowMemory, ConvMemory, KernelGradientMemory, KernelSquaresMemory>() &&
              disjoint<ProgramMemory, GramMemory>() && disjoint<ProgramMemory, PointwiseMemory>() &&
              disjoint<ProgramMemory, PointwiseSumsMemory>() && disjoint<ProgramMemory, Pool2x2Memory>() &&
              disjoint<ProgramMemory, DepthwiseMemory>() && disjoint<ProgramMemory, ByChannelMemory>() &&
              disjoint<ProgramMemory, GroupsMemory>() && disjoint<ProgramMemory, LaneWinogradMemory>() &&
              disjoint<ProgramMemory, WinogradMemory>() && disjoint<ProgramMemory, WinogradGradientMemory>());

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
    for (std::ptrdiff_t i = 0; i < p.map_count; ++i) {
        const std::int64_t* const n = p.maps + i * kMapNumbers;
        const auto size = [](std::int64_t number) { return number >= 0 && number <= kLargest; };
        if (n[0] < 0 || n[0] >= p.array_count || n[1] < 0 || !std::all_of(n + 2, n + kMapNumbers, size) ||
            (n[3] != 1 && n[3] != kWidth<T>))
            return "a map makes no sense";
    }
    for (std::ptrdiff_t at = 0; at < p.code_size;) {
        if (p.code[at] < 0 || p.code[at] >= kOperationCount) return "there is no such operation";
        const Operation<T>& op = kOperations<T>[p.code[at]];
        const std::ptrdiff_t numbers = at + 1 + op.maps, end = numbers + op.numbers;
        if (end > p.code_size) return "the program ends within an operation";
        while (++at < numbers)
            if (p.code[at] < -1 || p.code[at] >= p.map_count) return "there is no such map";
        at = end;
    }
    return nullptr;
}

template <typename T>
std::ptrdiff_t run(const Program& p, void* const* arrays, std::ptrdiff_t begin, bool before_updates) {
    Map<T>* maps = ProgramMemory::memory<Map<T>, kMaps>(p.map_count);
    for (std::ptrdiff_t i = 0; i < p.map_count; ++i) {
        const std::int64_t* const row = p.maps + i * kMapNumbers;
        maps[i] = map_at(static_cast<T*>(arrays[row[0]]) + row[1], row);
    }
    std::ptrdiff_t at = begin;
    while (at < p.code_size) {
        const Operation<T>& op = kOperations<T>[p.code[at]];
        if (before_updates && op.updates) break;
        op.run({maps, p.code + at + 1, p.code + at + 1 + op.maps});
        at += 1 + op.maps + op.numbers;
    }
    return at;
}

}  // namespace
}  // namespace sharedgrad
