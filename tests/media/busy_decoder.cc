// A decoder that never ends, in the place of the real one.
int main() {
  while (true) asm volatile("");
}
