#include "services/gateway/gateway.h"

int main(int argc, char** argv) { return triptych::services::RunGateway(argc, argv); }
