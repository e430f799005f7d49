// Memory that a thread keeps from call to call, in slots; and what makes sure that no two pieces of code hold the same
// slot at a time.
//
// Code takes memory through its Owner, which names the slots that it takes. Where owners hold their slots at the same
// time, `static_assert(disjoint<…>())` stands beside them.
#pragma once

#include <type_traits>

#include "threads.hpp"

namespace sharedgrad {
namespace {

template <Slot... own>
struct Owner {
    static constexpr unsigned slots = ((1u << own) | ...);

    // Room for so many elements; what it holds at first is arbitrary.
    template <typename T, Slot slot>
    static T* memory(std::size_t elements) {
        static_assert(slots >> slot & 1, "a slot of its own");
        static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 64, "nothing is constructed here");
        return static_cast<T*>(scratch(slot, elements * sizeof(T)));
    }
};

// Whether no slot has two of these owners.
template <typename... Owners>
constexpr bool disjoint() {
    unsigned taken = 0;
    bool apart = true;
    ((apart = apart && !(taken & Owners::slots), taken |= Owners::slots), ...);
    return apart;
}

static_assert(kSlotCount <= 32, "a bit for each slot");

}  // namespace
}  // namespace sharedgrad
