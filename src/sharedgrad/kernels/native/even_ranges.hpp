// How work is cut: by shape alone, so that the number of threads never changes a result.
#pragma once

#include <algorithm>

namespace sharedgrad {
namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// A number of things cut into tiles as even as possible: 7 by at most 4 are 4 + 3.
struct EvenRanges {
    int count, base, larger;  // the first `larger` tiles have one more than `base`
    EvenRanges(int total, int most) : count(ceil_div(total, most)), base(total / count), larger(total % count) {}
    int begin(int i) const { return i * base + std::min(i, larger); }
    int size(int i) const { return base + (i < larger); }
    int of(int k) const {  // the tile that k lies in
        const int whole = larger * (base + 1);
        return k < whole ? k / (base + 1) : larger + (k - whole) / base;
    }
};

}  // namespace
}  // namespace sharedgrad
