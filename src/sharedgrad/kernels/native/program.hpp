// A program: operations on maps, one after the other. Each takes maps (by number) and whole numbers.
//
// The Python side (native/program.py) writes programs: it knows which shapes belong together and where maps lie.
// Here every map is checked to lie within its array, and every operation that its maps fit, before anything runs.
#pragma once

#include "operations.hpp"

namespace sharedgrad {
namespace {

using ProgramMemory = Owner<kMaps>;  // while the operations take theirs
static_assert(disjoint<ProgramMemory, WindowMemory, ConvMemory, KernelGradientMemory, KernelSquaresMemory>() &&
              disjoint<ProgramMemory, GramMemory>() && disjoint<ProgramMemory, PointwiseMemory>() &&
              disjoint<ProgramMemory, PointwiseSumsMemory>() && disjoint<ProgramMemory, Pool2x2Memory>() &&
              disjoint<ProgramMemory, DepthwiseMemory>() && disjoint<ProgramMemory, SmallMapsMemory>() &&
              disjoint<ProgramMemory, WinogradMemory>() && disjoint<ProgramMemory, WinogradFewMemory>() &&
              disjoint<ProgramMemory, WinogradGradientMemory>());

constexpr int kMemories = 2;  // arrays that hold many maps; each other array is one map

// A map's row of numbers, checked to lie within its array.
template <typename T>
bool read_map(Map<T>& map, const std::int64_t* n, const Program& p) {
    for (int i = 0; i < kMapNumbers; ++i)
        if (n[i] < 0 || (i != 1 && n[i] > kLargest)) return false;
    if (n[0] >= p.array_count || !n[2] || !n[3] || n[3] > kWidth<T> || (n[3] & (n[3] - 1))) return false;
    map = {static_cast<T*>(p.arrays[n[0]]) + n[1],
           int(n[2]),
           int(n[3]),
           int(n[4]),
           int(n[5]),
           int(n[6]),
           int(n[7]),
           int(n[8]),
           int(n[9]),
           int(n[10])};
    const std::int64_t rows = n[7] + n[5] + n[8], columns = n[9] + n[6] + n[10];
    const double cells = double(rows) * columns + (n[3] > 1 && !(rows & columns & 1));  // as Map::channel
    const double size = double(map.blocks()) * map.channels * cells * n[3];
    // vectors of several columns are loaded whole, also at a row's end
    const double spare = n[3] == 1 && map.bare() ? 0 : kWidth<T>;
    if (n[0] >= kMemories) return double(n[1]) + size == double(p.sizes[n[0]]);
    return double(n[1]) + size + spare <= double(p.sizes[n[0]]);
}

template <typename T>
const char* run(const Program& p) {
    Map<T>* maps = ProgramMemory::memory<Map<T>, kMaps>(p.map_count);
    for (std::ptrdiff_t i = 0; i < p.map_count; ++i)
        if (!read_map(maps[i], p.maps + i * kMapNumbers, p)) return "an array has another size than its map";
    for (const bool check : {true, false})
        for (std::ptrdiff_t at = 0; at < p.code_size;) {
            if (p.code[at] < 0 || p.code[at] >= kOperationCount) return "there is no such operation";
            const Operation<T>& op = kOperations<T>[p.code[at]];
            if (at + 1 + op.maps + op.numbers > p.code_size) return "the program ends within an operation";
            const Operands<T> o{maps, p.code + at + 1, p.code + at + 1 + op.maps};
            if (check) {
                for (int i = 0; i < op.maps; ++i)
                    if (o.maps[i] >= p.map_count || o.maps[i] < -int(op.optional >> i & 1))
                        return "there is no such map";
                if (!op.fits(o)) return "an operation's maps do not fit";
            } else {
                op.run(o);
            }
            at += 1 + op.maps + op.numbers;
        }
    return nullptr;
}

}  // namespace
}  // namespace sharedgrad
