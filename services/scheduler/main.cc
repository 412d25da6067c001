#include "services/scheduler/scheduler_process.h"

int main(int argc, char** argv) { return triptych::services::RunScheduler(argc, argv); }
