"""What Conveyor is compared with: applications that speak its wire and do less, each a file that uvicorn serves."""
