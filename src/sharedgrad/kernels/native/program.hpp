// A program: operations on maps, one after the other. Each takes maps (by number) and whole numbers.
//
// The Python side (native/program.py) writes programs: it knows which shapes belong together and where maps lie.
// Here a program is checked once, when it is made: how much of its array every map takes, and that the maps of every
// operation fit. A run only compares the arrays' sizes.
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

constexpr int kMemories = 2;  // arrays that hold many maps; each other array is one map

constexpr double kMostElements = 1e15;  // of an array: far more than there is, and every sum of sizes is exact

// The map that a row of numbers stands for.
template <typename T>
Map<T> map_at(T* array, const std::int64_t* n) {
    const int lanes = int(n[3]), channels = int(n[4]), rounded = ceil_div(channels, lanes) * lanes;
    const int height = int(n[5]), width = int(n[6]), top = int(n[7]), bottom = int(n[8]), left = int(n[9]);
    if (n[11]) return {array, int(n[2]) * rounded, lanes, 1, height, width, top, bottom, left, int(n[10]), channels};
    return {array, int(n[2]), lanes, channels, height, width, top, bottom, left, int(n[10])};
}

// Whether a row of numbers is a map, and how far it reaches into its array.
template <typename T>
bool check_map(const std::int64_t* n, const Program& p) {
    for (int i = 0; i < kMapNumbers; ++i)
        if (n[i] < 0 || (i != 1 && n[i] > kLargest)) return false;
    if (n[0] >= p.array_count || !n[2] || (n[3] != 1 && n[3] != kWidth<T>)) return false;
    if (n[11] && double(n[2]) * (n[4] + n[3]) > kLargest) return false;
    const Map<T> map = map_at<T>(nullptr, n);
    const std::int64_t rows = n[7] + n[5] + n[8], columns = n[9] + n[6] + n[10];
    const double cells = double(rows) * columns + (n[3] > 1 && !(rows & columns & 1));  // as Map::channel
    const bool memory = n[0] < kMemories;
    const double end = double(n[1]) + double(map.blocks()) * map.channels * cells * n[3];
    if (end > kMostElements) return false;
    std::ptrdiff_t& size = p.sizes[n[0]];
    if (memory || size < 0) size = std::max(size, std::ptrdiff_t(end));
    return memory || double(size) == end;
}

template <typename T>
const char* check(const Program& p) {
    std::fill_n(p.sizes, p.array_count, -1);
    Map<T>* maps = ProgramMemory::memory<Map<T>, kMaps>(p.map_count);
    for (std::ptrdiff_t i = 0; i < p.map_count; ++i) {
        const std::int64_t* const row = p.maps + i * kMapNumbers;
        if (!check_map<T>(row, p)) return "an array has another size than its map";
        maps[i] = map_at<T>(nullptr, row);
    }
    for (std::ptrdiff_t at = 0; at < p.code_size;) {
        if (p.code[at] < 0 || p.code[at] >= kOperationCount) return "there is no such operation";
        const Operation<T>& op = kOperations<T>[p.code[at]];
        if (at + 1 + op.maps + op.numbers > p.code_size) return "the program ends within an operation";
        const Operands<T> o{maps, p.code + at + 1, p.code + at + 1 + op.maps};
        for (int i = 0; i < op.maps; ++i)
            if (o.maps[i] >= p.map_count || o.maps[i] < -int(op.optional >> i & 1)) return "there is no such map";
        if (!op.fits(o)) return "an operation's maps do not fit";
        at += 1 + op.maps + op.numbers;
    }
    return nullptr;
}

template <typename T>
void run(const Program& p, void* const* arrays) {
    Map<T>* maps = ProgramMemory::memory<Map<T>, kMaps>(p.map_count);
    for (std::ptrdiff_t i = 0; i < p.map_count; ++i) {
        const std::int64_t* const row = p.maps + i * kMapNumbers;
        maps[i] = map_at(static_cast<T*>(arrays[row[0]]) + row[1], row);
    }
    for (std::ptrdiff_t at = 0; at < p.code_size;) {
        const Operation<T>& op = kOperations<T>[p.code[at]];
        op.run({maps, p.code + at + 1, p.code + at + 1 + op.maps});
        at += 1 + op.maps + op.numbers;
    }
}

}  // namespace
}  // namespace sharedgrad
