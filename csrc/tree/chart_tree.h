// From choices to a tree: the items of a derivation from the top down, left parts first. For one instruction set.
#pragma once
#include "tree/chart.h"

namespace structops::STRUCTOPS_ISA {

enum class Item : int32_t { CR, CL, IR, IL, T, V };  // T: the item S of the second order

struct Visit {
  Item item;
  int32_t w, i;  // the span [i, i + w]
  int32_t rank;  // which of the item's derivations
};

// An alternative of an item: split at i + k (second order IL, IR: k = 0 is the first child), and which derivations of its parts.
struct Pick {
  int k, left, right;
};

// Pending items of a derivation over n words.
constexpr int64_t visits(int64_t n) { return 2 * n + 4; }

// Numbers in one tree.
inline int64_t tree_size(const ChartArgs& a) {
  if (a.kind != Chart::span) return a.N;
  return a.N > 1 ? 2 * (2 * a.N - 3) : 0;
}

// Writes the tree whose items choose(visit) -> Pick, starting from derivation `rank` of the whole sentence.
template <class F> [[gnu::always_inline]] inline void write_tree(Chart kind, bool second, int n, int rank, Visit* stack, int64_t* tree, F choose) {
  int top = 0, spans = 0;
  auto push = [&](Item item, int w, int i, int r) { stack[top++] = {item, w, i, r}; };
  auto halves = [&](int w, int i, Pick p) {
    push(Item::CL, w - p.k - 1, i + p.k + 1, p.right);
    push(Item::CR, p.k, i, p.left);
  };
  if (n > 0) push(kind == Chart::span ? Item::V : Item::CR, n, 0, rank);
  while (top > 0) {
    const Visit v = stack[--top];
    const int w = v.w, i = v.i;
    if (w == 0) continue;
    if (v.item == Item::V) {
      tree[2 * spans] = i;
      tree[2 * spans++ + 1] = i + w;
      if (w == 1) continue;
    }
    const bool left = v.item == Item::IL, right = v.item == Item::IR;
    if (left) tree[i] = i + w;
    if (right) tree[i + w] = i;
    const Pick p = choose(v);
    switch (v.item) {
      case Item::V:
        push(Item::V, w - p.k, i + p.k, p.right);
        push(Item::V, p.k, i, p.left);
        break;
      case Item::CR:
        push(Item::CR, w - p.k, i + p.k, p.right);
        push(Item::IR, p.k, i, p.left);
        break;
      case Item::CL:
        push(Item::IL, w - p.k, i + p.k, p.right);
        push(Item::CL, p.k, i, p.left);
        break;
      default:
        if (!second || v.item == Item::T) {
          halves(w, i, p);
        } else if (p.k == 0) {
          if (left) push(Item::CR, w - 1, i, p.left);
          else push(Item::CL, w - 1, i + 1, p.right);
        } else {
          push(left ? Item::IL : Item::T, w - p.k, i + p.k, p.right);
          push(left ? Item::T : Item::IR, p.k, i, p.left);
        }
    }
  }
}

}  // namespace structops::STRUCTOPS_ISA
