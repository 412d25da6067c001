#include "services/cli/commands.h"

int main(int argc, char** argv) { return triptych::services::RunTriptych(argc, argv); }
